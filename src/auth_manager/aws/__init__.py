"""AWS services, one file each; the only place that knows boto3."""

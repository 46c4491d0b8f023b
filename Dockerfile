# One image for every function: the template's ImageConfig picks another entry point than the CMD below.
# Decision and measurements: docs/decisions/0007-lambda-image.md.
ARG BASE_IMAGE=public.ecr.aws/lambda/python:3.13

FROM ${BASE_IMAGE} AS build
WORKDIR /build
COPY requirements.txt .
# Wheels only: building from source would need a compiler, and would run code that no hash covers.
# unchecked-hash: time stamps are not the same after every layer and rebuild; the sources in an image are.
# -s and -p: tracebacks name the files where they will be.
RUN python -m pip install --no-cache-dir --no-compile --only-binary=:all: --require-hashes \
        --requirement requirements.txt --target dependencies \
 && rm -r dependencies/bin \
 && python -m compileall -q -f --invalidation-mode unchecked-hash \
        -s dependencies -p "${LAMBDA_TASK_ROOT}" dependencies \
 && chmod -R a+rX,go-w dependencies
COPY src package
RUN python -m compileall -q -f --invalidation-mode unchecked-hash \
        -s package -p "${LAMBDA_TASK_ROOT}" package \
 && chmod -R a+rX,go-w package

FROM ${BASE_IMAGE}
COPY --from=build /build/dependencies ${LAMBDA_TASK_ROOT}/
COPY --from=build /build/package ${LAMBDA_TASK_ROOT}/
ARG GIT_SHA=unknown
ENV AUTH_GIT_SHA=${GIT_SHA} PYTHONDONTWRITEBYTECODE=1
CMD ["auth_manager.entrypoints.lambda_api.handler"]

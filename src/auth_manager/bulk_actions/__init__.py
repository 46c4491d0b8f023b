"""The same act on many accounts, after one looked at how many they are."""

from typing import Literal

Action = Literal["disable", "enable", "logout", "assign_role", "remove_role"]

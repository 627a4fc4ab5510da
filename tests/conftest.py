"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

# No deadline: a busy machine is no failure. CI draws the same examples every time.
settings.register_profile(
    "project",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")

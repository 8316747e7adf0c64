"""The fixtures of the jobs' tests."""

from tests.jobs.conftest import command, exam_config, one_device  # noqa: F401

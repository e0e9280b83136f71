"""Optimisers, their schedules, and which parameters they treat how."""

from .chain import failures, optimiser, shown
from .groups import check_groups, groups_of, table
from .schedules import schedule

__all__ = ["check_groups", "failures", "groups_of", "optimiser", "schedule", "shown", "table"]

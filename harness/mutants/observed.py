"""All mutations of the rows that the harness reads from an audit trail."""

from __future__ import annotations

from harness.mutants import observed_actor_list, observed_name_list, observed_row_list, observed_value_list

MUTATIONS = (
    *observed_row_list.MUTATIONS,
    *observed_name_list.MUTATIONS,
    *observed_value_list.MUTATIONS,
    *observed_actor_list.MUTATIONS,
)

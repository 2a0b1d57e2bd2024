"""What verl loads in every one of its processes (entry-point group `verl.plugins`).

Intentionally light: it registers the CPU platform and, where it is selected, the patches that must be in place before
verl's own modules are imported. Engine and loss come with `actor_rollout_ref.model.external_lib`
(`recipe.paec.plugins.register`), the trainer with `recipe.paec.driver.task_runner`. verl swallows an exception in a
plugin; `recipe.paec.driver.process.check_registrations` finds out.
"""

from __future__ import annotations

import os

from recipe.paec.common import versions
from recipe.paec.plugins import (
    cpu_platform,  # noqa: F401  (registers it)
    patches,
)

versions.require_verl()

ON_CPU = os.environ.get("VERL_PLATFORM", "") == "cpu"

if ON_CPU:
    patches.answer_vllm_version()
    patches.gloo_process_group()

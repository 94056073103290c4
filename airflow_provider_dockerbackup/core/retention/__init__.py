# SPDX-License-Identifier: Apache-2.0
"""Which backups stay: the policy, the plan that applies it, and the removal of what does not stay."""

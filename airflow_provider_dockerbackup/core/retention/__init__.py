# SPDX-License-Identifier: Apache-2.0
"""Which backups stay: the policy, and the plan that applies it. Pure: no storage, no clock."""

# SPDX-License-Identifier: Apache-2.0
"""The audit trail: what was changed, by whom, and the proof that nobody edited the story."""

# SPDX-License-Identifier: Apache-2.0
"""Bring backups of one repository into another, as conversions and copies do: the plan, the run, bytes, documents."""

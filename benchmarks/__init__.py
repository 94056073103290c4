# SPDX-License-Identifier: Apache-2.0
"""The performance suite: this project's work against what a user would otherwise type. ``python -m benchmarks``."""

from __future__ import annotations

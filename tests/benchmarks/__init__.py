# SPDX-License-Identifier: Apache-2.0
"""The performance suite itself is tested: its arithmetic, its meters, and each comparison's way through the code."""

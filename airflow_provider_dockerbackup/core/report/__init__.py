# SPDX-License-Identifier: Apache-2.0
"""The audit report: what is covered, how fresh and how proven it is, what was deleted, and is the trail intact?"""

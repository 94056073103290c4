# SPDX-License-Identifier: Apache-2.0
"""Airflow operators, one verb a module."""

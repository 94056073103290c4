# SPDX-License-Identifier: Apache-2.0
"""Scheduled, verified backups of Docker images and containers over SSH, as Apache Airflow operators."""

__version__ = "0.1.0"

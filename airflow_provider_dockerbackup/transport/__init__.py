# SPDX-License-Identifier: Apache-2.0
"""The outside world: SSH, Docker hosts, test daemons and storage. Still no Airflow."""

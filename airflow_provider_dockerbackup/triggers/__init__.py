# SPDX-License-Identifier: Apache-2.0
"""Airflow triggers: they wait for what goes on by itself on a Docker host."""

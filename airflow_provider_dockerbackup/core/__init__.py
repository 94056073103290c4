# SPDX-License-Identifier: Apache-2.0
"""What a backup is and how it is made, checked and restored: no Airflow, no network, no clock of its own."""

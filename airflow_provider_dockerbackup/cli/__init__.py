# SPDX-License-Identifier: Apache-2.0
"""The console script ``dockerbackup``, one verb a module. It needs no Airflow."""

# SPDX-License-Identifier: Apache-2.0
"""What backups hold, read without any Docker daemon: history, layer tree, files."""

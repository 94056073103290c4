# SPDX-License-Identifier: Apache-2.0
"""Copy backups into another repository: the same backups there, of which only what is missing travels."""

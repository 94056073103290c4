# SPDX-License-Identifier: Apache-2.0
"""Archives: the strict tar scanner, and readers and writers of docker-archives and root filesystems."""

# SPDX-License-Identifier: Apache-2.0
"""What the page "Image backups" shows: an index of repositories, and views of it as plain values."""

# SPDX-License-Identifier: Apache-2.0
"""Archives that are made, compressed and kept on the Docker host itself; only digests and records travel."""

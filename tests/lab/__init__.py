# SPDX-License-Identifier: Apache-2.0
"""The lab: real sshd, dockerd and S3 on loopback, for tests and for the demo alike."""

from __future__ import annotations

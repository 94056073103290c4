# SPDX-License-Identifier: Apache-2.0
"""Convert repositories: every backup of one goes into another of the other layout, and is the same backup there."""

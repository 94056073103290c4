# SPDX-License-Identifier: Apache-2.0
"""Encryption at rest with age (https://age-encryption.org/v1): anybody writes, who holds a private key reads."""

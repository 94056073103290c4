# SPDX-License-Identifier: Apache-2.0
"""Layout ``layers``: each layer once for the whole repository, as blobs of OCI image layouts."""

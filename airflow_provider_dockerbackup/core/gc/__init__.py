# SPDX-License-Identifier: Apache-2.0
"""Garbage collection of layout ``layers``: blobs that no backup references go, and none that one does, ever.

There is no lock server. Writers pin what they rely on and then look for condemnations; a sweeper condemns what it will
take away and then looks for pins and records again. So of a writer and a sweeper at once at least one sees the other.
"""

"""Datasets behind a CAVE server: the chunked graph, its watershed, its meshes, and logging in.

Read with caveclient and cloud-volume as they are.
"""

"""Flower carries the messages: a SuperLink between coordinator and sites; each site's process is a SuperNode of its own."""

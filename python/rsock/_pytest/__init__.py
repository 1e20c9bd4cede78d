"""What the plugin for pytest does once a test uses one of its fixtures.

`_servers` has the servers of one test, `_marks` its marker, `_recordings` the files that its
servers record to or replay, `_session` what all tests of a run share. `_scene` has what the servers
saw, `_cause` the line that tells why the test failed, `_section` the part of the report. Nothing
here may be imported before a fixture is used, nor import pytest's internals.
"""

"""What tests of several folders share beside fixtures."""

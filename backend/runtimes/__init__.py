"""Where boxes run: processes or containers, behind one port."""

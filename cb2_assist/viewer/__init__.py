"""Everything that says `neuroglancer`: the mount on our port and the viewer's first state."""

"""How clients come to trust Governor's CA without being told: variables, generated files, mounts over their stores."""

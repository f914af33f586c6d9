"""How unlike its training decisions a decision looks to a network. numpy only."""

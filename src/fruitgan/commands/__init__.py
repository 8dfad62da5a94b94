"""One thin file for each subcommand: options to settings to workflow to what is printed. No torch at the top."""

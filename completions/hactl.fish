complete --keep-order --exclusive --command hactl --arguments "(COMPLETE=fish hactl -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"

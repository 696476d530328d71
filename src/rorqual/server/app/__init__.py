"""The app's own interface (docs/app-api.md): sessions, conversations, keys, tutor, lab, pages."""

"""`governor init --kubernetes`: a user's workload in, a folder for kustomize out."""

"""Tests of what is deployed: manifests, images, dashboard, runbook, jobs. Nothing is fetched, nothing is started."""

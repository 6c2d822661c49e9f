"""SONAR for sign language (Duquenne et al. 2023, arXiv 2308.11466; Rust et al. 2024): features -> sentence embedding -> text."""

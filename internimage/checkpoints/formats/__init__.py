"""The containers that weights come in: torch files, folders of Transformers, configurations of OpenMMLab."""

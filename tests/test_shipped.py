from serve.shipped import shipped


def test_the_catalog_is_shipped() -> None:
    assert shipped("models.yaml").is_file()


def test_the_locks_are_shipped() -> None:
    assert shipped("requirements").is_dir()


def test_what_is_not_shipped_has_a_path_that_is_not_there() -> None:
    assert not shipped("no-such-file").exists()

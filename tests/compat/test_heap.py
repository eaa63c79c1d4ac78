from vipack.compat import heap


def test_free_memory_goes_back_once_in_a_while(monkeypatch):
    calls = []
    clock = [100.0]
    monkeypatch.setattr(heap, "_last", 0.0)
    monkeypatch.setattr(heap, "_trim", lambda: calls.append)
    monkeypatch.setattr(heap.time, "process_time", lambda: clock[0])
    for seconds in (0.0, 1.0, 1.5, 0.1):
        clock[0] += seconds
        heap.return_free_memory()
    assert calls == [0, 0]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert heap._trim.__wrapped__() is None

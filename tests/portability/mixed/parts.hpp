// The parts of a program, which main calls.

struct part {
    int (*use)();
    const part* next;

    explicit part(int (*used)()) noexcept;
};

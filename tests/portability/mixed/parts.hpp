// The parts of one program, each called by main.

struct part {
    int (*use)();
    const part* next;

    explicit part(int (*used)()) noexcept;
};

#ifndef PROMPTLAYER_BENCH_CURL_LOOP_HPP
#define PROMPTLAYER_BENCH_CURL_LOOP_HPP

#include <promptlayer/http.hpp>

#include <curl/curl.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

/// The time that a piece of work took, in seconds.
struct work_time {
    double elapsed = 0; ///< by the clock
    double cpu = 0;     ///< of all threads of the process, in the program and in the system
};

/// Measures from its construction.
class stopwatch {
    using clock = std::chrono::steady_clock;

    static double cpu_time() {
        rusage usage{};
        ::getrusage(RUSAGE_SELF, &usage);
        return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }

    clock::time_point start_ = clock::now();
    double cpu_start_ = cpu_time();

public:
    work_time time() const {
        return {std::chrono::duration<double>{clock::now() - start_}.count(), cpu_time() - cpu_start_};
    }
};

/// The baseline of the benchmark: a loop of libcurl's multi interface as an expert writes it by hand. Handles
/// and connections are used again; only the status and the body of a response are read.
class curl_loop {
    struct transfer {
        CURL* easy = nullptr;
        std::string body{};
    };

    CURLM* const multi_ = curl_multi_init();
    curl_slist* headers_ = nullptr;
    std::vector<transfer> transfers_;

    static std::size_t append(char* data, std::size_t, std::size_t size, void* body) {
        static_cast<std::string*>(body)->append(data, size);
        return size;
    }

public:
    /// Prepares to send `request`, which must outlive this object, up to `in_flight` times at once.
    curl_loop(const promptlayer::http_request& request, std::size_t in_flight) : transfers_(in_flight) {
        curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(in_flight));
        for (const promptlayer::header& h : request.headers)
            headers_ = curl_slist_append(headers_, (h.name + ": " + h.value).c_str());
        headers_ = curl_slist_append(headers_, "Accept:");
        headers_ = curl_slist_append(headers_, "Expect:");
        for (transfer& one : transfers_) {
            one.easy = curl_easy_init();
            curl_easy_setopt(one.easy, CURLOPT_PRIVATE, &one);
            curl_easy_setopt(one.easy, CURLOPT_URL, request.url.c_str());
            curl_easy_setopt(one.easy, CURLOPT_NOSIGNAL, 1L);
            curl_easy_setopt(one.easy, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
            curl_easy_setopt(one.easy, CURLOPT_HTTPHEADER, headers_);
            curl_easy_setopt(one.easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.body.size()));
            curl_easy_setopt(one.easy, CURLOPT_POSTFIELDS, request.body.data());
            curl_easy_setopt(one.easy, CURLOPT_WRITEFUNCTION, &append);
            curl_easy_setopt(one.easy, CURLOPT_WRITEDATA, &one.body);
        }
    }
    curl_loop(const curl_loop&) = delete;
    curl_loop& operator=(const curl_loop&) = delete;
    ~curl_loop() {
        for (const transfer& one : transfers_) {
            curl_multi_remove_handle(multi_, one.easy);
            curl_easy_cleanup(one.easy);
        }
        curl_multi_cleanup(multi_);
        curl_slist_free_all(headers_);
    }

    /// Sends the request `count` times. Returns how many were answered with 200.
    std::size_t run(std::size_t count) {
        std::size_t started = std::min(count, transfers_.size()), running = started, succeeded = 0;
        for (std::size_t i = 0; i < started; ++i)
            curl_multi_add_handle(multi_, transfers_[i].easy);
        while (running != 0) {
            int left = 0;
            curl_multi_perform(multi_, &left);
            while (const CURLMsg* const done = curl_multi_info_read(multi_, &left)) {
                CURL* const easy = done->easy_handle;
                transfer* finished = nullptr;
                long status = 0;
                curl_easy_getinfo(easy, CURLINFO_PRIVATE, &finished);
                curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
                if (done->data.result == CURLE_OK && status == 200 && !finished->body.empty())
                    ++succeeded;
                finished->body.clear();
                curl_multi_remove_handle(multi_, easy);
                if (started < count) {
                    ++started;
                    curl_multi_add_handle(multi_, easy);
                } else {
                    --running;
                }
            }
            if (running != 0)
                curl_multi_poll(multi_, nullptr, 0, 1'000, nullptr);
        }
        return succeeded;
    }
};

#endif

#ifndef PROMPTLAYER_TESTS_SUPPORT_CURL_TRUST_HPP
#define PROMPTLAYER_TESTS_SUPPORT_CURL_TRUST_HPP

#include <curl/curl.h>

#include <string>
#include <utility>

/// Returns a function for the constructor of a transport over libcurl, which then trusts this CA.
inline auto trust(std::string pem) {
    return [pem = std::move(pem)](CURL* easy) {
        curl_blob blob{const_cast<char*>(pem.data()), pem.size(), CURL_BLOB_COPY};
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    };
}

#endif

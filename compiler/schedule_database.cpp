// One table of schedules and one of what was tried. Write-ahead log: readers never wait, writers for one another.
#include "schedule_database.h"

#include <sqlite3.h>

#include <cstdlib>
#include <filesystem>

namespace cryolite {

namespace {

constexpr int format_version = 1, patience_ms = 20000, longest_text = 1 << 20;

constexpr char make_tables[] = R"(
CREATE TABLE IF NOT EXISTS schedules (
    generator TEXT, shape TEXT, type TEXT, path TEXT, target TEXT, cpu TEXT, halide TEXT, source TEXT,
    knobs TEXT NOT NULL, seconds REAL NOT NULL, own_seconds REAL NOT NULL, spread REAL NOT NULL, error REAL NOT NULL,
    made TEXT NOT NULL, machine TEXT NOT NULL,
    PRIMARY KEY (generator, shape, type, path, target, cpu, halide, source)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tried (
    key TEXT, knobs TEXT, outcome TEXT NOT NULL, PRIMARY KEY (key, knobs)) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
)";

} // namespace

// One prepared statement; texts and numbers are bound and read in order.
class ScheduleDatabase::Statement {
public:
    Statement(const ScheduleDatabase &database, const char *sql) : database_(database) {
        if (sqlite3_prepare_v2(database.handle_, sql, -1, &statement_, nullptr) != SQLITE_OK) database.fail();
    }
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement &) = delete;
    Statement &operator=(const Statement &) = delete;

    Statement &bind(const std::string &text) {
        if (sqlite3_bind_text(statement_, ++bound_, text.data(), int(text.size()), SQLITE_TRANSIENT) != SQLITE_OK)
            database_.fail();
        return *this;
    }
    Statement &bind(double value) {
        if (sqlite3_bind_double(statement_, ++bound_, value) != SQLITE_OK) database_.fail();
        return *this;
    }
    Statement &bind(const ScheduleKey &key) {
        for (const std::string &part :
             {key.generator, key.shape, key.type, key.path, key.target, key.cpu, key.halide, key.source})
            bind(part);
        return *this;
    }
    bool step() {
        read_ = 0;
        const int code = sqlite3_step(statement_);
        if (code != SQLITE_ROW && code != SQLITE_DONE) database_.fail();
        return code == SQLITE_ROW;
    }
    std::string text() {
        auto *bytes = reinterpret_cast<const char *>(sqlite3_column_text(statement_, read_));
        return std::string(bytes ? bytes : "", size_t(sqlite3_column_bytes(statement_, read_++)));
    }
    double number() { return sqlite3_column_double(statement_, read_++); }
    ScheduleKey key() {
        ScheduleKey key;
        for (std::string *part :
             {&key.generator, &key.shape, &key.type, &key.path, &key.target, &key.cpu, &key.halide, &key.source})
            *part = text();
        return key;
    }

private:
    const ScheduleDatabase &database_;
    sqlite3_stmt *statement_ = nullptr;
    int bound_ = 0, read_ = 0;
};

void ScheduleDatabase::fail() const {
    throw CompileError("'" + file_ + "': " + (handle_ ? sqlite3_errmsg(handle_) : "out of memory"));
}

void ScheduleDatabase::run(const char *sql) const {
    if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

// Takes the file alone, for which SQLite does not wait by itself where two processes want it.
void ScheduleDatabase::make_log() const {
    for (int waited = 0;; waited += 10) {
        const int code = sqlite3_exec(handle_, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
        if (code == SQLITE_OK) return;
        if (code != SQLITE_BUSY || waited >= patience_ms) fail();
        sqlite3_sleep(10);
    }
}

ScheduleDatabase::ScheduleDatabase(const std::string &file, Access access) : file_(file) {
    if (access == write) {
        std::error_code ignored; // the file then says what is wrong
        const std::filesystem::path folder = std::filesystem::path(file).parent_path();
        if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
    }
    const int flags = access == write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    try {
        if (sqlite3_open_v2(file.c_str(), &handle_, flags, nullptr) != SQLITE_OK) fail();
        sqlite3_busy_timeout(handle_, patience_ms);
        sqlite3_limit(handle_, SQLITE_LIMIT_LENGTH, longest_text);
        run("PRAGMA trusted_schema = OFF");
        int version = 0;
        {
            Statement statement(*this, "PRAGMA user_version");
            if (statement.step()) version = int(statement.number());
        }
        if (version == 0 && access == write) {
            make_log();
            run((std::string("BEGIN IMMEDIATE;") + make_tables + "COMMIT").c_str());
            version = format_version;
        }
        if (version != format_version) throw CompileError("'" + file + "' is no database of schedules");
        if (access == write) run("PRAGMA synchronous = NORMAL");
    } catch (...) {
        sqlite3_close(handle_);
        throw;
    }
}

ScheduleDatabase::~ScheduleDatabase() { sqlite3_close(handle_); }

std::vector<TunedSchedule> ScheduleDatabase::all() const {
    Statement rows(*this, "SELECT generator, shape, type, path, target, cpu, halide, source, knobs, seconds, "
                          "own_seconds, spread, error, made, machine FROM schedules ORDER BY 1, 2, 3, 4, 5, 6, 7, 8");
    std::vector<TunedSchedule> schedules;
    while (rows.step()) {
        TunedSchedule schedule;
        schedule.key = rows.key();
        schedule.knobs = parse_knobs(rows.text());
        for (double *figure : {&schedule.seconds, &schedule.own_seconds, &schedule.spread, &schedule.error})
            *figure = rows.number();
        schedule.made = rows.text();
        schedule.machine = rows.text();
        schedules.push_back(std::move(schedule));
    }
    return schedules;
}

void ScheduleDatabase::store(const std::vector<TunedSchedule> &schedules) {
    run("BEGIN IMMEDIATE");
    try {
        for (const TunedSchedule &s : schedules) {
            Statement insert(*this,
                             "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
            insert.bind(s.key).bind(print(s.knobs)).bind(s.seconds).bind(s.own_seconds).bind(s.spread).bind(s.error);
            insert.bind(s.made).bind(s.machine).step();
        }
        run("COMMIT");
    } catch (...) {
        sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
        throw;
    }
}

std::vector<TriedCandidate> ScheduleDatabase::tried(const ScheduleKey &key) const {
    Statement rows(*this, "SELECT knobs, outcome FROM tried WHERE key = ?");
    rows.bind(key.text());
    std::vector<TriedCandidate> tried;
    while (rows.step()) {
        Knobs knobs = parse_knobs(rows.text());
        tried.push_back({std::move(knobs), rows.text()});
    }
    return tried;
}

void ScheduleDatabase::add_tried(const ScheduleKey &key, const TriedCandidate &tried) {
    Statement insert(*this, "INSERT OR REPLACE INTO tried VALUES (?, ?, ?)");
    insert.bind(key.text()).bind(print(tried.knobs)).bind(tried.outcome).step();
}

void ScheduleDatabase::forget_tried(const ScheduleKey &key) {
    Statement(*this, "DELETE FROM tried WHERE key = ?").bind(key.text()).step();
}

std::string ScheduleDatabase::usual_file() {
    if (const char *data = std::getenv("XDG_DATA_HOME"); data && *data)
        return std::string(data) + "/cryolite/schedules.db";
    if (const char *home = std::getenv("HOME"); home && *home)
        return std::string(home) + "/.local/share/cryolite/schedules.db";
    throw CompileError("neither XDG_DATA_HOME nor HOME is set: name a file of schedules");
}

} // namespace cryolite

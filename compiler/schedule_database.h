// A file of tuned schedules, SQLite: written by any number of tuners at once, whole whenever one of them dies.
#ifndef CRYOLITE_SCHEDULE_DATABASE_H
#define CRYOLITE_SCHEDULE_DATABASE_H

#include "schedules.h"

#include <memory>

struct sqlite3;

namespace cryolite {

// What became of a candidate: what an interrupted tuner need not try again.
struct TriedCandidate {
    Knobs knobs;
    std::string outcome; // why it was rejected, or that it won, for people
};

// All members throw CompileError that names the file.
class ScheduleDatabase {
public:
    enum Access { read, write };
    // write: made when missing, its folder too.
    ScheduleDatabase(const std::string &file, Access access);
    ~ScheduleDatabase();
    ScheduleDatabase(const ScheduleDatabase &) = delete;
    ScheduleDatabase &operator=(const ScheduleDatabase &) = delete;

    std::vector<TunedSchedule> all() const;                  // in order of their keys
    void store(const std::vector<TunedSchedule> &schedules); // all or none; a schedule of the same key is replaced
    std::vector<TriedCandidate> tried(const ScheduleKey &key) const;
    void add_tried(const ScheduleKey &key, const TriedCandidate &tried);
    void forget_tried(const ScheduleKey &key);

    // $XDG_DATA_HOME/cryolite/schedules.db, or ~/.local/share/cryolite/schedules.db.
    static std::string usual_file();

private:
    class Statement;
    std::string file_;
    sqlite3 *handle_ = nullptr;
    void run(const char *sql) const;
    void make_log() const;
    [[noreturn]] void fail() const;
};

} // namespace cryolite
#endif
